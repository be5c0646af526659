"""Log-in of the MLflow server where a training has no right to move an alias: `authorization_function` in auth.ini.

MLflow's permissions do not tell creating a version, which every training does, from moving an alias.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization

TRAINER = "trainer"


def authenticate() -> "Authorization | Response":
    """Of the current request: the user that MLflow's own log-in finds, or the answer that refuses the request."""
    from flask import jsonify, request
    from mlflow.server.auth import authenticate_request_basic_auth

    user = authenticate_request_basic_auth()
    moves_alias = request.method != "GET" and request.path.rstrip("/").endswith("/registered-models/alias")
    if getattr(user, "username", None) != TRAINER or not moves_alias:
        return user
    message = "the user trainer may not move aliases: start the DAG cifar10_promotion or cifar10_rollback"
    refused = jsonify(error_code="PERMISSION_DENIED", message=message)
    refused.status_code = 403
    return refused
