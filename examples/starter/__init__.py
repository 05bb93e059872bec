"""How the starter model was made: its tokenizer and its weights."""
