"""What every layer shares and nothing else: errors, files, settings, records, registries."""
