"""What a trigger form asks for: a model whose fields are those of the form."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cifar_tasks.errors import ConfigError, nearest, problems


class FormRequest(BaseModel):
    """Immutable. The form takes titles, texts and bounds from its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    group: ClassVar[str | None] = None
    """The field whose own fields stand in the form beside the others, under its title."""

    @classmethod
    def form_fields(cls) -> dict[str, dict[str, Any]]:
        """JSON schema of each field of the form."""
        fields: dict[str, dict[str, Any]] = cls.model_json_schema()["properties"]
        if cls.group:
            section = fields.pop(cls.group)["title"]
            fields |= {
                name: {**schema, "section": section}
                for name, schema in cls._grouped().model_json_schema()["properties"].items()
            }
        return fields

    @classmethod
    def checked(cls, values: Mapping[str, Any], name: Callable[[str], str] = str) -> Self:
        """`ConfigError` has a line for each value that does not fit; `name` is how the user knows a field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError("\n".join(problems(error, name))) from None

    @classmethod
    def from_form(cls, values: Mapping[str, Any]) -> Self:
        """From the values of the trigger form; a field that was left empty has its default.

        `ConfigError` names all that does not fit. A run that is triggered by API may have keys that the form has not:
        Airflow passes them on.
        """
        fields = cls.form_fields()
        if unknown := [f"{key!r}{nearest(key, fields)}" for key in values if key not in fields]:
            raise ConfigError(f"the form has no field {', '.join(unknown)}; its fields: {', '.join(sorted(fields))}.")
        given = {key: value for key, value in values.items() if value is not None}
        if cls.group:
            inner = cls._grouped().model_fields
            given[cls.group] = {key: given.pop(key) for key in list(given) if key in inner}
        try:
            return cls.checked(given)
        except ConfigError as error:
            raise ConfigError(re.sub(f"^{cls.group}\\.", "", str(error), flags=re.MULTILINE)) from None

    def as_form(self) -> dict[str, Any]:
        """The values of the form for this request."""
        values = self.model_dump(mode="json")
        return values | values.pop(self.group) if self.group else values

    @classmethod
    def _grouped(cls) -> type[BaseModel]:
        grouped = cls.model_fields[cls.group or ""].annotation
        assert isinstance(grouped, type)  # noqa: S101  (for mypy)
        return grouped
