"""The dashboard: `streamlit run app.py`. One server and one port carry the pages, the pictures and TensorBoard."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lora_lightning.ui.routes import routes
from lora_lightning.ui.warm import warmed
from lora_lightning.workspace import Workspace

NAVIGATION = Path(__file__).parent / "lora_lightning" / "ui" / "navigation.py"

HOSTS = st.get_option("server.allowedHosts") or ["*"]
"""Streamlit itself looks at them for its own connection only."""

app = st.App(
    NAVIGATION,
    lifespan=warmed,
    routes=routes(Workspace.find()),
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
)
