"""How anything is measured here: rows in processes of their own, in turn, by two clocks."""
