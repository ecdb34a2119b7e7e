"""The partitioned cache: each server of a job holds a part of the data set in its memory for all.

    ownership   which server an item belongs to
    secret      who may speak to whom
    address     where servers are, and which is ours
    wire        what a request and a reply look like
    server      the process beside a node's cache that answers
    node        this node's server, found or started
    client      asks one server
    membership  who is there
    asking      one item asked for, where Python makes the samples
    exchange    a native pass asking ahead: own cache, then the owner's, then storage

pyarrow is imported where it is used, never by importing coordl.
"""
