"""The partitioned cache: each server of a job holds a part of the data set in its memory for all.

ownership   which server an item belongs to
secret      who may speak to whom
wire        what a request and a reply look like
server      the process beside a node's cache that answers
client      asks one server
membership  who is there
exchange    a loader's requests: own cache, then the owner's, then storage
"""
