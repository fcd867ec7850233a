"""Text in, tokens out: files found (corpus), written as shards (shards), read as training windows (loader)."""
