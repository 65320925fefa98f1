"""The team's place: what one machine computed, found and verified on another through IPFS."""
