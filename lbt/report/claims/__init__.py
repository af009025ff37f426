"""Claims of a paper, the rules they are judged by and what the figures say of them."""
