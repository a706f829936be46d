"""Certificates for tests that speak TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certificate(
    folder: Path,
    *,
    name: str = "cert",
    host: str = "IP:127.0.0.1",
    signed_by: tuple[Path, Path] | None = None,
) -> tuple[Path, Path]:
    """Make a certificate and its key, as PEM files, with openssl.

    Parameters
    ----------
    name : str
        Of the certificate's file; that of the key follows from it.
    host : str
        Whom it is for, as openssl writes a subjectAltName.
    signed_by : tuple of Path, optional
        Certificate and key of the authority; without one, it signs itself.
    """
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-days", "2", "-subj", f"/CN={host.partition(':')[2]}"]
    made += ["-addext", f"subjectAltName={host}", "-keyout", str(key), "-out", str(cert)]
    if signed_by is not None:
        made += ["-CA", str(signed_by[0]), "-CAkey", str(signed_by[1])]
    subprocess.run(made, check=True, capture_output=True)
    return cert, key
