"""What several tests share: small surveys, tables, catalogues and oracles."""
