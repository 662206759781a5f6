"""From text pairs to tensors.

`sources` reads (source, target) texts, `split` holds some out, `tokenizer` turns text into ids,
`cache` keeps the ids in memory-mapped Arrow files, `plan` says which examples form update k and its
micro-batches, `batches` makes tensors of them.
"""
