"""The SDKs that one tool generates (groq, openai, anthropic): their clients, values and batches."""
