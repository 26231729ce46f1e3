"""What a recipe says about publishing; importing this needs no torch."""

from pydantic import Field

from lora_lightning.settings import Settings


class PublishConfig(Settings):
    """Where the LoRA goes on the Hugging Face Hub."""

    repo: str = Field(
        "",
        title="Repository",
        description="user/name on the Hugging Face Hub.",
        pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
    )
    private: bool = Field(True, title="Private", description="Only you can see a private repository.")
