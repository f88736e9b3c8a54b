"""Kubernetes: the part of a pod template; `$(NAME)` is expanded there, and `$$` is one dollar."""

from gradience.storage.environment.exports.export import Export, comments, yaml_quoted
from gradience.storage.environment.layout import Layout


def render(layout: Layout) -> str:
    """Environment, mount and volume claim, to merge into a pod template."""
    lines = [*comments(layout), "spec:", "  containers:", "    - name: train", "      env:"]
    for setting in layout.settings:
        value = yaml_quoted(setting.value.replace("$", "$$"))
        lines += [f"        - name: {setting.name}", f"          value: {value}"]
    lines += [
        "      volumeMounts:",
        "        - name: gradience-cache",
        f"          mountPath: {yaml_quoted(str(layout.root))}",
        "  volumes:",
        "    - name: gradience-cache",
        "      persistentVolumeClaim:",
        "        claimName: gradience-cache",
    ]
    return "\n".join(lines) + "\n"


K8S = Export(
    name="k8s",
    title="Kubernetes pod template",
    render=render,
    where="elsewhere",
    platform="kubernetes",
    usage="gradience env --platform kubernetes --format k8s > pod-cache.yaml",
)
