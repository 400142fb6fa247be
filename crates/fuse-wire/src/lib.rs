//! The FUSE protocol on the wire: checked views of requests, emitters of replies
