"""The key that signs modules: one per user, made once, never part of a bundle. An edge file."""

import os
from pathlib import Path

from kanctl.programs import run

REQUEST = """[ req ]
default_bits = 4096
distinguished_name = name
prompt = no
string_mask = utf8only
x509_extensions = extensions

[ name ]
CN = kanctl module signing key

[ extensions ]
basicConstraints = critical,CA:FALSE
keyUsage = digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def ensure_key(folder: Path) -> Path:
    """The private key with its certificate in one file; made where there is none, readable by its owner alone.

    All kernels of a team should be signed by one key, so that a module of the same build always loads; whoever has
    the file can sign modules that these kernels trust. Source: Documentation/admin-guide/module-signing.rst
    """
    key = folder / "module-signing.pem"
    if key.is_file():
        return key
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = folder / ".module-signing.part"
    request = folder / ".module-signing.cnf"
    request.write_text(REQUEST)
    try:
        os.close(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        words = ["openssl", "req", "-new", "-nodes", "-utf8", "-sha512", "-days", "36500", "-batch", "-x509"]
        run([*words, "-config", str(request), "-outform", "PEM", "-out", str(scratch), "-keyout", str(scratch)])
        scratch.rename(key)
    finally:
        request.unlink(missing_ok=True)
        scratch.unlink(missing_ok=True)
    return key
