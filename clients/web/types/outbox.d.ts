/**
 * What a session says, numbered from 0 as the server counts it: sent in order on whatever socket there is, and again
 * on the next if it was lost. Kept until the server is known to have it.
 */
export class Outbox {
    /** @param {number} maxBytes  of what the server is not known to have */
    constructor(maxBytes: number);
    get heldBytes(): number;
    /**
     * Take the next message. Throws DialogueError, taking nothing, if it is too large or too much is held.
     * @param {object} message
     * @param {number} maxMessageBytes
     */
    put(message: object, maxMessageBytes: number): void;
    /**
     * The session is open on a socket, and the server has `received` messages: send the rest. Throws DialogueError for a
     * number that can't be.
     * @param {(text: string) => void} send
     * @param {number} received
     */
    attach(send: (text: string) => void, received: number): void;
    /** The socket is gone. */
    detach(): void;
    /**
     * Whether a pong of this name answers a question of this outbox.
     * @param {string | null} id
     */
    takeReceipt(id: string | null): boolean;
    #private;
}
