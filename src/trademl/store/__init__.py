"""Artifacts and their manifests on local files: complete or absent, never half."""
