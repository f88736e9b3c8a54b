"""One module per packed format, one line each here; nothing else needs to know of a new one."""

from gradience.audit.base.packed.format import Format
from gradience.registry import Registry

_HERE = "gradience.audit.base.packed"

FORMATS: Registry[Format] = Registry(
    "packed format",
    {
        "fp8": f"{_HERE}.float8:FP8",
        "mxfp4": f"{_HERE}.float4:MXFP4",
        "nvfp4": f"{_HERE}.float4:NVFP4",
        "gptq": f"{_HERE}.gptq:GPTQ",
        "awq": f"{_HERE}.awq:AWQ",
        "bitsandbytes_4bit": f"{_HERE}.bitsandbytes:BITSANDBYTES_4BIT",
        "bitsandbytes_8bit": f"{_HERE}.bitsandbytes:BITSANDBYTES_8BIT",
        "compressed_tensors": f"{_HERE}.compressed_tensors:COMPRESSED_TENSORS",
        "gguf": f"{_HERE}.gguf:GGUF",
    },
)
