"""Files, written whole or not at all, and read as a stranger's.

| module        | owns                                                               |
| ------------- | ------------------------------------------------------------------ |
| `writing`     | files and folders that are whole or absent                         |
| `reading`     | plain files alone, no larger than they may be; JSON without tricks |
| `sums`        | SHA256SUMS                                                         |
| `sealed_json` | JSON that holds its own SHA-256                                    |
| `tensors`     | safetensors that hold theirs                                       |
| `schema`      | the policy file that both frameworks read                          |
"""
