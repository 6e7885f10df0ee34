"""Reading a config without running it, and without importing the modules that it names.

``--safe-config`` reads files so, and a checkpoint's own config is always read so.
"""

import ast
import operator
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from frdet.config.origins import base_names, everything, parse, parse_text
from frdet.config.schema import find_component
from frdet.errors import ConfigError

_NUMBERS: dict[type, Callable] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_,
}  # fmt: skip
_METHODS = ('strip', 'lstrip', 'rstrip', 'removeprefix', 'removesuffix')  # of strings
_NOT_FINITE = ("float('inf')", "float('-inf')", "float('nan')")
#: Under these keys MMEngine takes a string for a class, and imports a module if the class is not registered.
_CLASSES = ('type', 'constructor', 'runner_type')
_VARIABLE = re.compile(r'\{\{\s*\$\s*(\w+)\s*:\s*([^\s{}]*)\s*\}\}')
_SIZE = 1 << 20  # bytes of a file, and characters or items of a value


def read_safely(path: Path, below: tuple[Path, ...] = ()) -> Config:
    """A config with its ``_base_`` files, which may hold data only: literals, ``dict(...)``, and names assigned before.

    Numbers may be calculated with + - * / //, and strings, lists and tuples joined by +. Strings may be stripped, or
    formatted by f-strings. Dicts may be spread by ``**``. ``{{$NAME:default}}`` is filled in.

    Raises:
        ConfigError: anything else is in a file; the message names file and line.
    """
    path = path.resolve()
    if path in below:
        raise ConfigError(f'{path} inherits from itself')
    try:
        if path.suffix != '.py' or path.stat().st_size > _SIZE:
            raise ConfigError(f'{path}: --safe-config reads .py files of up to {_SIZE >> 20} MiB')
        assigned = _Reader(str(path)).read(parse(path))
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror}') from None
    bases = base_names(assigned.pop('_base_', []), str(path))
    merged: dict[str, Any] = {}
    for base in bases:
        values = read_safely(path.parent / base, (*below, path)).to_dict()
        if twice := sorted(merged.keys() & values.keys()):
            raise ConfigError(f'{path}: several of its _base_ files set {", ".join(twice)}')
        merged.update(values)
    cfg = Config(merged)
    cfg.merge_from_dict(assigned)
    return Config(cfg.to_dict(), filename=str(path))


def read_text(text: str, name: str) -> Config:
    """The whole config in ``text``, as ``dump_config`` writes it; ``name`` stands for the text in errors.

    Modules in ``custom_imports`` are not imported: the program must have imported them before. Environment variables
    are not filled in.

    Raises:
        ConfigError: the text is more than data, or needs a module that is not imported.
    """
    if len(text) > _SIZE:
        raise ConfigError(f'{name} has {len(text)} characters, expected at most {_SIZE}')
    values = _Reader(name, fills_in=False).read(parse_text(text, name))
    custom = values.pop('custom_imports', None)
    modules = custom.get('imports', []) if isinstance(custom, dict) else []
    modules = [modules] if isinstance(modules, str) else list(modules)
    if absent := [module for module in modules if module not in sys.modules]:
        raise ConfigError(f'{name} needs the modules {", ".join(map(str, absent))}, which are not imported yet')
    cfg = Config(values)
    refuse_imports(cfg)
    return cfg


def refuse_imports(cfg: Config) -> None:
    """Raise ConfigError if building ``cfg`` would import a module that it names, as for a class of another package."""
    if cfg.get('custom_imports'):
        raise ConfigError('custom_imports runs modules, which --safe-config does not allow: leave it out')
    strings = ((key_path, value) for key_path, value in everything('', cfg.to_dict()) if isinstance(value, str))
    for key_path, value in strings:
        key = key_path.rpartition('.')[2]
        if key == '_scope_' or (key_path == 'default_scope' and value not in ('frdet', 'mmengine')):
            raise ConfigError(f'{key_path}: found {value!r}, and a config read as data imports no other package')
        component = key in _CLASSES and key_path != 'optim_wrapper.clip_grad.type'
        if component and ('.' in value or (find_component(value, None) is None)):
            raise ConfigError(
                f'{key_path}: {value!r} is not registered, and a config read as data imports no module: '
                'expected a component of frdet or MMEngine'
            )


class _Reader:
    """The values that a file or text assigns.

    Args:
        name: of the file, for errors.
        fills_in: replace ``{{$NAME:default}}`` by the environment variable.
    """

    def __init__(self, name: str, *, fills_in: bool = True):
        self.name = name
        self.fills_in = fills_in
        self.names: dict[str, Any] = {}

    def read(self, tree: ast.Module) -> dict[str, Any]:
        """Names and their last values."""
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
                continue
            if not isinstance(node, ast.Assign) or not all(isinstance(t, ast.Name) for t in node.targets):
                raise self.refusal(node)
            for target in node.targets:
                self.names[target.id] = self.value(node.value)  # type: ignore[attr-defined]
        return {name: value for name, value in self.names.items() if not name.startswith('__')}

    def value(self, node: ast.expr) -> Any:
        """The value of an expression, computed without a call of anything that it names."""
        found = self._value(node)
        if isinstance(found, (str, list, tuple, dict)) and len(found) > _SIZE:
            raise ConfigError(f'{self.name}:{node.lineno}: found {len(found)} items, expected at most {_SIZE}')
        return found

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
            return self._filled(node) if isinstance(node.value, str) else node.value
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.names[node.id]
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [self.value(item) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.Dict):
            return self._dict(zip(node.keys, node.values, strict=True), node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, (ast.BinOp, ast.UnaryOp)):
            return self._calculated(node)
        if isinstance(node, ast.JoinedStr):
            return ''.join(self._formatted(part) for part in node.values)
        raise self.refusal(node)

    def _dict(self, items: Any, node: ast.expr) -> dict:
        made: dict = {}
        for key, value in items:
            inner = self.value(value)
            if key is None and not isinstance(inner, dict):
                raise self.refusal(node)
            name = self.value(key) if isinstance(key, ast.expr) else key
            if not isinstance(name, (str, int, float, type(None))):
                raise self.refusal(node)
            made.update(inner if key is None else {name: inner})
        return made

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id == 'dict' and 'dict' not in self.names and not node.args:
            return self._dict(((k.arg, k.value) for k in node.keywords), node)
        if ast.unparse(node) in _NOT_FINITE and 'float' not in self.names:
            return float(ast.literal_eval(node.args[0]))
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS and not node.keywords:
            text, *args = (self.value(part) for part in (node.func.value, *node.args))
            if len(args) < 2 and all(isinstance(part, str) for part in (text, *args)):
                return getattr(str, node.func.attr)(text, *args)
        raise self.refusal(node)

    def _calculated(self, node: ast.BinOp | ast.UnaryOp) -> Any:
        parts = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
        values = [self.value(part) for part in parts]
        numbers = all(isinstance(v, (int, float)) and abs(v) < 1e300 for v in values)
        joined = isinstance(node.op, ast.Add) and isinstance(values[0], (str, list, tuple))
        operation = _NUMBERS.get(type(node.op))
        if operation is None or not (numbers or joined and type(values[0]) is type(values[1])):
            raise self.refusal(node)
        try:
            return operation(*values)
        except ArithmeticError as error:
            raise ConfigError(f'{self.name}:{node.lineno}: {error}') from None

    def _formatted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return self.value(node)
        value = self.value(node.value) if isinstance(node, ast.FormattedValue) else None
        plain = isinstance(node, ast.FormattedValue) and node.format_spec is None and node.conversion == -1
        if not plain or not isinstance(value, (str, int, float)):
            raise self.refusal(node)
        return str(value)

    def _filled(self, node: ast.Constant) -> str:
        written = str(node.value)
        if not self.fills_in:
            return written
        text = _VARIABLE.sub(lambda found: os.environ.get(found[1], found[2]), written)
        if '{{' in _VARIABLE.sub('', written):
            raise self.refusal(node)
        return text

    def refusal(self, node: ast.AST) -> ConfigError:
        """The error for an expression or statement that is more than data."""
        shown = ast.unparse(node).splitlines()[0][:60]
        return ConfigError(
            f'{self.name}:{getattr(node, "lineno", 0)}: found {shown!r}, and a config read as data holds '
            'literals, dict(...), names assigned before and _base_ only'
        )
