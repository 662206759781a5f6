"""Reading a run's YAML, its ``key=value`` overrides, and writing the resolved config back."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from recipes.config import RunConfig
from recipes.errors import UserError, nearest

_Model = TypeVar("_Model", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_config(path: str | Path, overrides: list[str] = ()) -> RunConfig:
    """Read, override and check a config.

    Raises:
        UserError: naming the file or field, the value and the way out; one line per problem.
    """
    return parse_config(apply_overrides(read_yaml(Path(path)), list(overrides)), where=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a config file (.yaml)")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{_other_configs(path)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); a config is a YAML text file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        raise UserError(f"{path}:{line} not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config is a mapping with the blocks {', '.join(RunConfig.model_fields)}")
    return content


def _other_configs(path: Path) -> str:
    known = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return nearest(str(path), known) if known else ""


def apply_overrides(content: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Set dotted keys to values that are read as YAML, mappings in braces. The input is not changed."""
    content = _copy(content)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise UserError(f"override '{override}': write key=value, such as schedule.peak_lr=3e-4")
        try:
            value = yaml.load(text, Loader=_UniqueKeyLoader)
        except yaml.YAMLError:
            raise UserError(f"override '{override}': '{text}' is not a YAML value; quote it") from None
        if isinstance(value, dict) and not text.lstrip().startswith("{"):
            value = text  # "summarize: " is a prefix; a mapping is written in braces
        *parents, last = dotted.split(".")
        block = content
        for depth, parent in enumerate(parents):
            if block.get(parent) is None:
                block[parent] = {}
            block = block[parent]
            if not isinstance(block, dict):
                raise UserError(f"override '{override}': {'.'.join(parents[: depth + 1])} is a value, not a block")
        block[last] = value
    return content


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def parse_config(content: dict[str, Any], where: str = "config") -> RunConfig:
    return parse_as(RunConfig, content, where)


def parse_as(model: type[_Model], content: dict[str, Any], where: str) -> _Model:
    """``content`` as a ``model``, a description closed to unknown keys such as `RunConfig`.

    Raises:
        UserError: one line per problem, with the nearest known key for an unknown one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_explain(problem, model) for problem in error.errors()]
        raise UserError("\n".join(f"{where}: {line}" for line in lines)) from None


def _explain(problem: dict[str, Any], root: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    field = ".".join(location)
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"unknown key '{field}'{_nearest_key(location, root)}"
    if kind == "missing":
        return f"{field} is missing: {_description(location, root)}"
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error" and isinstance(value, dict):
        return f"{field}: {message}" if field else message
    message = message[0].lower() + message[1:]
    shown = "null" if value is None else repr(value)
    return f"{field} is {shown}: {message}"


def _block_at(location: list[str], root: type[BaseModel]) -> type[BaseModel] | None:
    """The model whose fields stand at a dotted place."""
    model: Any = root
    for part in location:
        if part.isdigit():  # a place in a list of such blocks
            continue
        field = model.model_fields.get(part) if model is not None else None
        model = model_in(field.annotation) if field is not None else None
    return model


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(model_in, getattr(annotation, "__args__", ())) if m is not None), None)


def _nearest_key(location: list[str], root: type[BaseModel]) -> str:
    block = _block_at(location[:-1], root)
    if block is None:
        return ""
    siblings = [".".join([*location[:-1], name]) for name in block.model_fields]
    if difflib.get_close_matches(location[-1], list(block.model_fields), n=1, cutoff=0.6):
        return nearest(".".join(location), siblings)
    elsewhere = [dotted for dotted in all_keys(root) if dotted.rsplit(".", 1)[-1] == location[-1]]
    if elsewhere:
        return f", did you mean '{elsewhere[0]}'?"
    return f" (known: {', '.join(block.model_fields)})"


def _description(location: list[str], root: type[BaseModel]) -> str:
    block = _block_at(location[:-1], root)
    return (block.model_fields[location[-1]].description or "") if block is not None else ""


def all_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> dict[str, str]:
    """Every dotted key of a config with its description, in order."""
    keys: dict[str, str] = {}
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        keys[prefix + name] = field.description or ""
        if inner is not None:
            keys |= all_keys(inner, f"{prefix}{name}.")
    return keys


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(old: BaseModel, new: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two configs differ -> (old value, new value)."""
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return {key: (before.get(key), after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key; an empty mapping is a leaf."""
    if not isinstance(value, dict) or not value:
        return {prefix.removesuffix("."): value}
    return {k: v for name, item in value.items() for k, v in flatten(item, f"{prefix}{name}.").items()}
