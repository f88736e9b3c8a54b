"""What a Python program says about its places, read from its source and never executed.

The order of lines is the point: a library freezes most of its paths when it is imported, so
`os.environ[...] = ...` below that import does nothing. What a module beside the script imports
counts at the line that imports that module.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gradience.storage.doctor.constants import Scope, dotted, text_of
from gradience.storage.doctor.facts import Assignment, Import, PathLiteral

Load = Callable[[str], str | None]

PATH_KEYWORDS = frozenset({
    "cache_dir", "cache_folder", "local_dir", "output_dir", "logging_dir", "save_directory",
    "save_dir", "default_root_dir", "checkpoint_dir", "project_dir", "download_dir", "hub_cache",
})  # fmt: skip
_FIRST_ARGUMENT = {
    "save_pretrained": "save_directory",
    "save_model": "output_dir",
    "save_to_disk": "save_directory",
    "TrainingArguments": "output_dir",
    "Seq2SeqTrainingArguments": "output_dir",
    "SFTConfig": "output_dir",
    "DPOConfig": "output_dir",
    "GRPOConfig": "output_dir",
}
_ENVIRON = frozenset({"os.environ", "environ"})
_MODULES = 40  # files beside the script that are followed


@dataclass(slots=True, kw_only=True)
class Reading:
    """What was found, in the order in which it happens."""

    imports: list[Import] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    literals: list[PathLiteral] = field(default_factory=list)
    computed: list[PathLiteral] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(
    source: str,
    *,
    environ: Mapping[str, str],
    home: str,
    load: Load = lambda _: None,
    arguments: tuple[str, ...] = (),
) -> Reading:
    """What a program imports, sets and names, in order.

    Parameters
    ----------
    source : str
        The program's text.
    environ : mapping of str to str
        For expressions such as `os.environ.get("SCRATCH", "/tmp")`.
    home : str
        For `os.path.expanduser`.
    load : callable
        The source of a module beside the script, by its name, or None.
    arguments : tuple of str
        What the script is given; `--output_dir x` overrides a default in the source.

    Examples
    --------
    >>> r = read("import torch, os\\nos.environ['HF_HOME'] = '/x'\\nimport transformers",
    ...          environ={}, home="/h")
    >>> [(i.library, i.line) for i in r.imports], [(a.name, a.value, a.line) for a in r.assignments]
    ([('torch', 1), ('os', 1), ('transformers', 3)], [('HF_HOME', '/x', 2)])
    """
    reader = _Reader(Scope(environ=environ, home=home), load)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        reader.found.notes.append(f"the script cannot be parsed: {error}")
        return reader.found
    reader.module(tree)
    _override(reader.found, arguments)
    # `args.output_dir` is the option of that name, which may have told its value.
    told = {p.keyword for p in reader.found.literals}
    computed = reader.found.computed
    reader.found.computed = [p for p in computed if p.value.rpartition(".")[2] not in told]
    return reader.found


class _Reader:
    """Walks statements in the order in which they run; bodies of functions come last."""

    def __init__(self, scope: Scope, load: Load) -> None:
        self.found = Reading()
        self.scope = scope
        self.load = load
        self.visited: set[str] = set()
        self.order = 0
        self.line_of_import: int | None = None  # while a module beside the script is read

    def module(self, tree: ast.Module) -> None:
        """Statements of a module, then bodies of the functions and classes it defines."""
        later: list[ast.stmt] = []
        self._block(tree.body, later, conditional=False)
        while later:
            deferred, later = later, []
            for node in deferred:
                body: list[ast.stmt] = getattr(node, "body", [])
                self._block(body, later, conditional=not isinstance(node, ast.ClassDef))

    def _block(self, body: Sequence[ast.AST], later: list[ast.stmt], *, conditional: bool) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                later.append(node)
                continue
            if isinstance(node, ast.ClassDef):
                self._fields(node)
                later.append(node)
                continue
            if isinstance(node, ast.stmt):  # handlers and cases only hold statements
                self._statement(node, conditional=conditional)
            for name in ("body", "orelse", "handlers", "finalbody", "cases"):
                inner = getattr(node, name, [])
                maybe = conditional or (
                    isinstance(node, ast.If | ast.For | ast.While | ast.ExceptHandler)
                    and not _is_main_guard(node)
                )
                self._block(inner, later, conditional=maybe)

    def _statement(self, node: ast.stmt, *, conditional: bool) -> None:
        line: int = self.line_of_import or node.lineno
        match node:
            case ast.Import(names=names):
                for alias in names:
                    self._import(alias.name, line)
            case ast.ImportFrom(module=str(name), level=0):
                self._import(name, line)
            case ast.ImportFrom(module=name, level=1):
                self._import(name or "", line)
            case ast.Assign(targets=[target], value=value):
                self._assign(target, value, line, conditional)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, line, conditional)
            case ast.AugAssign(target=target, value=value) if dotted(target) in _ENVIRON:
                self._update([value], [], line, conditional)
        for call in _calls(node):
            self._call(call, line, conditional)

    def _import(self, name: str, line: int) -> None:
        root = name.partition(".")[0]
        source = self._source(name) if self.line_of_import is None or name else None
        if source is None:
            if all(known.library != root for known in self.found.imports):
                self.found.imports.append(Import(library=root, line=line, order=self._next()))
            return
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            self.found.notes.append(f"line {line}: the module {name} cannot be parsed")
            return
        outer, self.line_of_import = self.line_of_import, line
        self._block(tree.body, [], conditional=False)
        self.line_of_import = outer

    def _next(self) -> int:
        self.order += 1
        return self.order

    def _source(self, name: str) -> str | None:
        if not name or name in self.visited or len(self.visited) >= _MODULES:
            return None
        source = self.load(name)
        if source is not None:
            self.visited.add(name)
        return source

    def _assign(self, target: ast.expr, value: ast.expr, line: int, conditional: bool) -> None:
        text = text_of(value, self.scope)
        if isinstance(target, ast.Name):
            if text is not None:
                self.scope.names[target.id] = text
            else:
                self.scope.names.pop(target.id, None)
        elif isinstance(target, ast.Subscript) and dotted(target.value) in _ENVIRON:
            name = text_of(target.slice, self.scope)
            if name is not None:
                self._set(name, text, line, "os.environ", conditional)

    def _set(self, name: str, value: str | None, line: int, how: str, conditional: bool) -> None:
        self.found.assignments.append(
            Assignment(
                name=name,
                value=value,
                line=line,
                how=how,
                order=self._next(),
                conditional=conditional,
            )
        )

    def _update(
        self,
        arguments: list[ast.expr],
        keywords: list[ast.keyword],
        line: int,
        conditional: bool,
    ) -> None:
        for argument in arguments:
            if isinstance(argument, ast.Dict):
                for key, value in zip(argument.keys, argument.values, strict=True):
                    name = text_of(key, self.scope)
                    if name is not None:
                        text = text_of(value, self.scope)
                        self._set(name, text, line, "os.environ.update", conditional)
        for keyword in keywords:
            if keyword.arg:
                text = text_of(keyword.value, self.scope)
                self._set(keyword.arg, text, line, "os.environ.update", conditional)

    def _call(self, call: ast.Call, line: int, conditional: bool) -> None:
        name = dotted(call.func)
        last = call.func.attr if isinstance(call.func, ast.Attribute) else name
        owner = name.rpartition(".")[0]
        if owner in _ENVIRON and last == "setdefault" and call.args:
            self._setdefault(call, line, conditional)
        elif owner in _ENVIRON and last == "update":
            self._update(call.args, call.keywords, line, conditional)
        elif name in {"os.putenv", "putenv"} and len(call.args) == 2:
            variable = text_of(call.args[0], self.scope)
            if variable:
                value = text_of(call.args[1], self.scope)
                self._set(variable, value, line, "os.putenv", conditional)
        elif last == "load_dotenv":
            file = text_of(call.args[0], self.scope) if call.args else None
            self._set("", file or ".env", line, "load_dotenv", conditional)
        elif last == "add_argument":
            self._option(call, line)
        else:
            self._places(call, last, line)

    def _setdefault(self, call: ast.Call, line: int, conditional: bool) -> None:
        name = text_of(call.args[0], self.scope)
        if name is not None and name not in self.scope.environ:
            value = text_of(call.args[1], self.scope) if len(call.args) > 1 else None
            self._set(name, value, line, "os.environ.setdefault", conditional)

    def _option(self, call: ast.Call, line: int) -> None:
        """`parser.add_argument("--output_dir", default="out")`."""
        flags = [t for a in call.args if (t := text_of(a, self.scope)) and t.startswith("--")]
        default = next((k.value for k in call.keywords if k.arg == "default"), None)
        value = text_of(default, self.scope)
        for flag in flags:
            keyword = flag.lstrip("-").replace("-", "_")
            if keyword in PATH_KEYWORDS and value is not None:
                self._literal(keyword, value, "the command line's default", line)

    def _places(self, call: ast.Call, last: str, line: int) -> None:
        for keyword in call.keywords:
            if keyword.arg in PATH_KEYWORDS:
                self._place(keyword.arg, keyword.value, last, line)
        if last in _FIRST_ARGUMENT and call.args:
            self._place(_FIRST_ARGUMENT[last], call.args[0], last, line)

    def _place(self, keyword: str, value: ast.expr, call: str, line: int) -> None:
        text = text_of(value, self.scope)
        if text is not None:
            self._literal(keyword, text, call, line)
        elif not isinstance(value, ast.Constant):  # None: the library's own place
            expression = ast.unparse(value)
            self.found.computed.append(
                PathLiteral(keyword=keyword, value=expression, call=call, line=line)
            )

    def _fields(self, node: ast.ClassDef) -> None:
        """`output_dir: str = "out"` in a dataclass of options."""
        for field_ in node.body:
            match field_:
                case ast.AnnAssign(target=ast.Name(id=name), value=value) if name in PATH_KEYWORDS:
                    text = text_of(value, self.scope)
                    if text is not None:
                        self._literal(name, text, node.name, field_.lineno)

    def _literal(self, keyword: str, value: str, call: str, line: int) -> None:
        line = self.line_of_import or line
        self.found.literals.append(PathLiteral(keyword=keyword, value=value, call=call, line=line))


def _is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.dump(node.test)


def _calls(node: ast.stmt) -> Iterator[ast.Call]:
    """Calls in the expressions of one statement, not in the statements below it."""
    waiting: list[ast.AST] = [
        child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)
    ]
    while waiting:
        here = waiting.pop(0)
        if isinstance(here, ast.ExceptHandler | ast.match_case):
            continue
        if isinstance(here, ast.Call):
            yield here
        waiting.extend(c for c in ast.iter_child_nodes(here) if not isinstance(c, ast.stmt))


def _override(found: Reading, arguments: tuple[str, ...]) -> None:
    """`--output_dir x` on the command line takes the place of a default in the source."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        keyword = flag.lstrip("-").replace("-", "_")
        if not flag.startswith("--") or keyword not in PATH_KEYWORDS:
            continue
        if not equals:
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        if value:
            found.literals = [
                p
                for p in found.literals
                if p.keyword != keyword or p.call != "the command line's default"
            ]
            given = PathLiteral(keyword=keyword, value=value, call="the command line", line=0)
            found.literals.append(given)
