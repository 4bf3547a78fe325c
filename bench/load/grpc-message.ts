// A gRPC message as it goes over HTTP/2.

/** Length-prefixed, not compressed: five bytes, then `bytes` bytes of payload. */
export function grpcMessage(bytes: number): Buffer {
  const message = Buffer.alloc(5 + bytes, 'm');
  message.writeUInt8(0, 0);
  message.writeUInt32BE(bytes, 1);
  return message;
}
