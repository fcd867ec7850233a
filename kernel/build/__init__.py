"""From a verified configuration to packages: patched source, compilation, signing, packaging, bill of materials."""
