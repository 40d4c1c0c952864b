"""One file per pipeline step: paths in, files out, one record back."""

STEPS = (
    "version_data",
    "augment",
    "select_strategy",
    "fine_tune",
    "choose_model",
    "evaluate",
    "export_onnx",
    "register_model",
)
RETRAIN_STEPS = ("detect_change", "fetch_champion", *STEPS)
