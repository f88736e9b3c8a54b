"""A SLURM job script: directories are made on the node, and its own disk is used if it has one.

`$SLURM_TMPDIR` is known only inside the job, so compile caches move there when the job starts.
"""

from gradience.storage.environment.exports.export import Export, comments, posix_quoted
from gradience.storage.environment.layout import Layout

_ON_NODE = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "TMPDIR": "tmp",
}


def render(layout: Layout) -> str:
    """Lines for the head of a job script, after its #SBATCH lines."""
    lines = [*comments(layout)]
    lines += [f"export {s.name}={posix_quoted(s.value)}" for s in layout.settings]
    lines.append('if [ -d "${SLURM_TMPDIR:-}" ]; then')
    lines += [f'  export {name}="$SLURM_TMPDIR/{below}"' for name, below in _ON_NODE.items()]
    lines.append("fi")
    made = [f'"${s.name}"' for s in layout.settings if s.kind == "directory" or s.name in _ON_NODE]
    lines.append("mkdir -p -- " + " ".join(made))
    return "\n".join(lines) + "\n"


SLURM = Export(
    name="slurm",
    title="SLURM job script",
    render=render,
    where="elsewhere",
    usage="gradience env --format slurm, pasted after the #SBATCH lines",
)
