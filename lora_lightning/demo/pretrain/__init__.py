"""How the embedded models were trained: one file a stage, each restartable and bounded by wall-clock seconds."""
