//! What the end-to-end tests share: a daemon of one's own, its PKI, and the programs that talk to it.
