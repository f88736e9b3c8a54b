"""Read adapters: every file format to one record, `Adapter`, of `LoraLayer`s."""
