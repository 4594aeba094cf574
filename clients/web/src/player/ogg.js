const OPUS_RATE_HZ = 48000;
/** 6.5 ms in samples at 48 kHz: libopus' look-ahead. */
export const PRE_SKIP_SAMPLES_48K = 312;
const MAX_PAGE_SEGMENTS = 255;
const CONTINUED = 1;
const FIRST = 2;
const LAST = 4;
const NO_PACKET_ENDS = -1n;
const HEADER_BYTES = 27;
const CRC_OFFSET = 22;
const VENDOR = 'dialogue-streamer';
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc << 1) ^ (crc < 0 ? 0x04c11db7 : 0);
  return crc;
});

/** Turns Opus packets into the pages of an Ogg Opus file (RFC 3533, RFC 7845), mono. */
export class OggOpusWriter {
  #sampleRate;
  #serial;
  /** @type {Uint8Array<ArrayBuffer>[]} */
  #pages = [];
  #granule = 0;
  #pagedSamples = 0;
  #continued = false;
  /** @type {number[]} */
  #lacing = [];
  /** @type {Uint8Array[]} */
  #body = [];

  /**
   * @param {number} sampleRate  the encoder's input, Hz (informative)
   * @param {number} [serial]  the stream's number; random if left out
   */
  constructor(sampleRate, serial = Math.floor(Math.random() * 2 ** 32)) {
    this.#sampleRate = sampleRate;
    this.#serial = serial;
    this.#lace(head(this.#sampleRate));
    this.#page(0n, FIRST);
    this.#lace(tags());
    this.#page(0n);
  }

  /**
   * @param {Uint8Array} packet
   * @param {number} samples48k  its length
   */
  packet(packet, samples48k) {
    // A packet that fits a page is not spread over two.
    const segments = Math.floor(packet.length / 255) + 1;
    if (this.#lacing.length > 0 && this.#lacing.length + segments > MAX_PAGE_SEGMENTS) this.#page(this.#ends());
    this.#lace(packet);
    this.#granule += samples48k;
    if (this.#granule - this.#pagedSamples >= OPUS_RATE_HZ) this.#page(this.#ends());
  }

  /**
   * The whole file; nothing can be added afterwards.
   * @returns {Uint8Array<ArrayBuffer>[]}
   */
  close() {
    this.#page(this.#lacing.length > 0 ? this.#ends() : NO_PACKET_ENDS, LAST);
    return this.#pages;
  }

  #ends() {
    return BigInt(this.#granule);
  }

  /** @param {Uint8Array} packet */
  #lace(packet) {
    for (let start = 0; start <= packet.length; start += 255) {
      if (this.#lacing.length === MAX_PAGE_SEGMENTS) {
        this.#page(NO_PACKET_ENDS);
        this.#continued = true;
      }
      const piece = packet.subarray(start, start + 255);
      this.#lacing.push(piece.length);
      this.#body.push(piece);
    }
  }

  /**
   * Close the current page, which may be empty.
   * @param {bigint} granule
   * @param {number} [flags]
   */
  #page(granule, flags = 0) {
    const bodyBytes = this.#body.reduce((sum, piece) => sum + piece.length, 0);
    const page = new Uint8Array(HEADER_BYTES + this.#lacing.length + bodyBytes);
    const view = new DataView(page.buffer);
    page.set(ascii('OggS'));
    view.setUint8(5, flags | (this.#continued ? CONTINUED : 0));
    view.setBigInt64(6, granule, true);
    view.setUint32(14, this.#serial, true);
    view.setUint32(18, this.#pages.length, true);
    view.setUint8(26, this.#lacing.length);
    page.set(this.#lacing, HEADER_BYTES);
    let at = HEADER_BYTES + this.#lacing.length;
    for (const piece of this.#body) {
      page.set(piece, at);
      at += piece.length;
    }
    view.setUint32(CRC_OFFSET, crc(page), true);
    this.#pages.push(page);
    this.#continued = false;
    this.#pagedSamples = this.#granule;
    this.#lacing = [];
    this.#body = [];
  }
}

/** @param {number} sampleRate */
function head(sampleRate) {
  const packet = new Uint8Array(19);
  const view = new DataView(packet.buffer);
  packet.set(ascii('OpusHead'));
  view.setUint8(8, 1);
  view.setUint8(9, 1);
  view.setUint16(10, PRE_SKIP_SAMPLES_48K, true);
  view.setUint32(12, sampleRate, true);
  return packet;
}

function tags() {
  const packet = new Uint8Array(16 + VENDOR.length);
  packet.set(ascii('OpusTags'));
  new DataView(packet.buffer).setUint32(8, VENDOR.length, true);
  packet.set(ascii(VENDOR), 12);
  return packet;
}

/** @param {string} text */
function ascii(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/**
 * Ogg's checksum: CRC-32 from 0, not reflected, not inverted.
 * @param {Uint8Array} page
 */
function crc(page) {
  let sum = 0;
  for (const byte of page) sum = (sum << 8) ^ CRC_TABLE[(sum >>> 24) ^ byte];
  return sum >>> 0;
}
