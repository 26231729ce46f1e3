"""LoRA Lightning: caption -> train -> evaluate -> generate -> publish, for FLUX LoRAs."""

__version__ = "0.1.0"
