"""Prefect flows over the DVC stages: they start ``dvc repro`` and know nothing of the bodies."""
