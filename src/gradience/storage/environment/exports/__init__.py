"""One module per format, one line each here."""

from gradience.registry import Registry
from gradience.storage.environment.exports.export import Export

_HERE = "gradience.storage.environment.exports"

EXPORTS: Registry[Export] = Registry(
    "format",
    {
        "bash": f"{_HERE}.bash:BASH",
        "zsh": f"{_HERE}.zsh:ZSH",
        "fish": f"{_HERE}.fish:FISH",
        "powershell": f"{_HERE}.powershell:POWERSHELL",
        "dotenv": f"{_HERE}.dotenv:DOTENV",
        "dockerfile": f"{_HERE}.dockerfile:DOCKERFILE",
        "compose": f"{_HERE}.compose:COMPOSE",
        "k8s": f"{_HERE}.k8s:K8S",
        "systemd": f"{_HERE}.systemd:SYSTEMD",
        "slurm": f"{_HERE}.slurm:SLURM",
    },
)
