"""Signalling: small signed and sealed messages to a public key, over MQTT brokers that both ends can reach.

Pure: `envelope` (with `seal`, `replay`), `rendezvous`, `brokers` and `servers` (configuration), `ordering`,
`timing`, `websocket`. At the edge: `dial` and `stream` (sockets), `mqtt` (aiomqtt), `link` (one
broker), `pool` and `inbound` (all of them), `delivery` (one message out), `intake` and `inbox`
(messages in), `router` (the whole), `embedded` (a broker of our own). What the engine needs of it is
`signaller`.
"""
