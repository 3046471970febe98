"""Mistakes a person could make in a source text, each as one small change of it. Pure.

Python is changed through its syntax tree, Lua line by line. What has no meaning at run time
(annotations, docstrings, decorators) and the wording of texts is left alone.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final


@dataclass(frozen=True, slots=True, order=True)
class Mutation:
    """One change: bytes `start` to `end` of the source become `after`. `line` counts from 1."""

    line: int
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: str) -> str:
        """Return the source with the mistake in it."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()


Signatures = Mapping[str, Sequence[str]]
"""The annotations of the parameters of each function, by its name; without `self`."""

_COMPARISONS: Final[Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: Final[Mapping[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
_TWINS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


def signatures(sources: Sequence[str]) -> dict[str, list[str]]:
    """Return what the functions in these sources take; a name that is used twice is left out."""
    found: dict[str, list[str]] = {}
    twice = set[str]()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [one for one in node.args.args if one.arg not in {"self", "cls"}]
                kinds = [ast.unparse(one.annotation) if one.annotation else "" for one in taken]
                if node.name in found:
                    twice.add(node.name)
                found[node.name] = kinds
    return {name: kinds for name, kinds in found.items() if name not in twice}


def in_python(source: str, known: Signatures) -> list[Mutation]:
    """Return every mistake of these kinds that a Python source has room for, in its order."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw, found = source.encode(), set[Mutation]()
    for node in _meaningful(ast.parse(source)):
        for place, after in _mistakes(node, known):
            start = starts[place.lineno - 1] + place.col_offset
            end = starts[(place.end_lineno or 0) - 1] + (place.end_col_offset or 0)
            before = raw[start:end].decode()
            # in parentheses the change binds as the node did, whatever stands around it
            text = f"({after})" if isinstance(place, ast.expr) else after
            found.add(Mutation(place.lineno, start, end, before, text))
    return sorted(found)


def _meaningful(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that are evaluated, without the wording of texts."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params", "bases", "keywords"}:
            keywords = value if name == "keywords" and isinstance(node, ast.Call) else []
            for keyword in keywords:
                if keyword.arg != "strict":  # of a zip: it guards what is right already
                    yield from _meaningful(keyword.value)
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr | ast.ClassDef) and _is_text(child):
                continue
            if isinstance(child, ast.AST):
                yield from _meaningful(child)


def _is_text(node: ast.AST) -> bool:
    """Tell whether nothing but words, or a port's empty methods, stand there."""
    if isinstance(node, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    return True


_Change = tuple[ast.expr | ast.stmt, str]


def _mistakes(node: ast.AST, known: Signatures) -> Iterator[_Change]:
    """Yield which node would be written otherwise, and how."""
    match node:
        case ast.Compare():
            yield from _other_comparison(node)
        case ast.BoolOp() | ast.UnaryOp() | ast.BinOp() | ast.Constant():
            yield from ((node, after) for after in _other_value(node))
        case ast.Call():
            yield from _other_call(node, known)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not isinstance(test, ast.Compare | ast.UnaryOp | ast.Constant):
                yield test, f"not ({ast.unparse(test)})"
        case ast.stmt():
            yield from _other_statement(node)


def _other_comparison(node: ast.Compare) -> Iterator[_Change]:
    """Yield the comparison with its boundary moved, or the other way round."""
    for place, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            changed = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield node, ast.unparse(ast.Compare(node.left, changed, node.comparators))


def _other_value(node: ast.expr) -> Iterator[str]:
    """Yield the value as it is with another operator, an operand less, or another number."""
    match node:
        case ast.BoolOp(op=kind, values=values):
            opposite: ast.boolop = ast.Or() if isinstance(kind, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(opposite, values))
            for place in range(len(values)):
                rest = [*values[:place], *values[place + 1 :]]
                yield ast.unparse(rest[0] if len(rest) == 1 else ast.BoolOp(kind, rest))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATORS:
            yield ast.unparse(ast.BinOp(left, _OPERATORS[type(kind)](), right))
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() | float() as value):
            # a large float stays the same
            yield from (str(other) for other in (value + 1, value - 1) if other != value)


def _other_call(node: ast.Call, known: Signatures) -> Iterator[_Change]:
    """Yield the call with two arguments of one type swapped, and its function's twin."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else name
    if name in _TWINS and isinstance(node.func, ast.Name):
        twin = ast.Name(_TWINS[name], ast.Load())
        yield node, ast.unparse(ast.Call(twin, node.args, node.keywords))
    kinds = known.get(name, ())
    for place, (first, second) in enumerate(pairwise(kinds)):
        if first == second and place + 1 < len(node.args):
            args = list(node.args)
            args[place], args[place + 1] = args[place + 1], args[place]
            yield node, ast.unparse(ast.Call(node.func, args, node.keywords))


def _other_statement(node: ast.stmt) -> Iterator[_Change]:
    """Yield the statement left out, or nothing returned."""
    match node:
        case ast.Return(value=value) if value and ast.unparse(value) not in {"None", "False"}:
            yield node, "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete():
            yield node, "pass"
        case ast.Assign(targets=targets) if all(
            isinstance(target, ast.Attribute | ast.Subscript) for target in targets
        ):
            yield node, "pass"
        case ast.Raise() | ast.Continue() | ast.Break():
            yield node, "pass"


_Rule = tuple[str, Callable[[re.Match[str]], str]]


def _to(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text


_LUA: Final[Sequence[_Rule]] = (
    (r"==", _to("~=")),
    (r"~=", _to("==")),
    (r" < ", _to(" <= ")),
    (r" <= ", _to(" < ")),
    (r" > ", _to(" >= ")),
    (r" >= ", _to(" > ")),
    (r" \+ ", _to(" - ")),
    (r" - ", _to(" + ")),
    (r" \* ", _to(" / ")),
    (r" and ", _to(" or ")),
    (r" or ", _to(" and ")),
    (r"\bnot ", _to("")),
    (r"math\.max", _to("math.min")),
    (r"math\.min", _to("math.max")),
    (r"(?<![\w.'])\d+(?![\w.'])", lambda found: str(int(found[0]) + 1)),
    (r"(?<![\w.'])\d+(?![\w.'])", lambda found: str(int(found[0]) - 1)),
    (r"^\s*(redis\.call|append|set)\(.*\)$", _to("")),
)


def in_lua(source: str) -> list[Mutation]:
    """Return every mistake of these kinds that a Lua source has room for, in its order."""
    found, start = [], 0
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        code = line.partition("--")[0].rstrip("\n")
        for pattern, after in _LUA:
            for match in re.finditer(pattern, code):
                first = start + len(line[: match.start()].encode())
                last = first + len(match[0].encode())
                found.append(Mutation(number, first, last, match[0], after(match)))
        start += len(line.encode())
    return sorted(found)
