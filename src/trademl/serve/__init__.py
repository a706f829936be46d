"""The model server and its client; answering and asking over HTTP needs the ``serve`` extra."""
