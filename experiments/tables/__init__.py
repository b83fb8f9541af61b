"""Tables of results as Markdown, as the pages of docs/ include them."""
