"""Settings as the documents show them."""

from pydantic import BaseModel


def settings_table(settings: type[BaseModel], prefix: str = "") -> str:
    """All of them as a Markdown table: name, default, meaning.

    Args:
        settings: whose fields.
        prefix: of an environment variable; its name is this and the field's, in capitals.
    """
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        shown = f"{prefix}{name}".upper() if prefix else name
        value = field.get_default(call_default_factory=True)
        value = value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else value
        default = "required" if field.is_required() else f"`{value}`"
        lines.append(f"| `{shown}` | {default} | {field.description} |")
    return "\n".join(lines)
