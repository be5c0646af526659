"""Log-in of the MLflow server where a training may create versions and no more: `authorization_function` in auth.ini.

MLflow's permissions do not tell creating a version, which every training does, from moving an alias; and who creates a
registered model may do everything with it. Deleting a version deletes its aliases.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization

TRAINER = "trainer"
REFUSED = re.compile(r"/(registered-models/(alias|rename|update|delete|set-tag|delete-tag)|model-versions/delete)/?$")
"""Ends of the addresses that change what is promoted."""


def authenticate() -> "Authorization | Response":
    """Of the current request: the user that MLflow's own log-in finds, or the answer that refuses the request."""
    from flask import jsonify, request
    from mlflow.server.auth import authenticate_request_basic_auth

    user = authenticate_request_basic_auth()
    if getattr(user, "username", None) != TRAINER or request.method == "GET" or not REFUSED.search(request.path):
        return user
    message = (
        "the user trainer may not move aliases or change a registered model: start the DAG cifar10_promotion or "
        "cifar10_rollback"
    )
    refused = jsonify(error_code="PERMISSION_DENIED", message=message)
    refused.status_code = 403
    return refused
