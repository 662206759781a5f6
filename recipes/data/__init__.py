"""From text pairs to tensors.

`sources` reads (source, target) texts in windows, `split` holds some out, `tokenizer` turns text into ids, `encoding` does so
window by window on all cores, `build` makes Arrow files of the ids in the folder of `staging`, `cache` publishes and maps
them, `plan` says which examples form update k and its micro-batches, `batches` makes tensors of them.
"""
