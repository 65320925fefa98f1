"""Which CID answers which key: an index merged from what every writer signed."""
