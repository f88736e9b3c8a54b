"""`from gradience.vnext.audit import audit_lora_peft_dir`."""

from gradience.audit.records import AdapterAudit, LayerAudit
from gradience.audit.run import audit_lora_peft_dir, audit_lora_state_dict

__all__ = ["AdapterAudit", "LayerAudit", "audit_lora_peft_dir", "audit_lora_state_dict"]
