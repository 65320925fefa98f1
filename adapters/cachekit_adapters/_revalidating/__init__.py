"""The one road for answers of services that have validators and rate limits, whoever asks: kept, confirmed, or waited for."""
