/**
 * @typedef {{type: 'turn' | 'turnend', turnIndex: number, atMs: number} | {type: 'drained', atMs: number}} ClockEvent
 *   A turn's first sample is heard; its last was heard; all that came was heard, and no turn is open.
 */
/**
 * Where in the dialogue the listener is. It is fed with the audio frames that will be played, in order, and with how
 * much was played by now; it has no time of its own. Silence that is not in the audio does not count, as in the
 * protocol's `played_ms`.
 */
export class PlaybackClock {
    /** @param {number} sampleRate  Hz */
    constructor(sampleRate: number);
    /** How much was heard of the session's audio. */
    get playedMs(): number;
    /** How much is there that was not heard yet. */
    get bufferedMs(): number;
    /** Audio frames that were heard to their end. */
    get framesPlayed(): number;
    /** Samples that were pushed and not cut. */
    get endSamples(): number;
    /** The turn that is heard or was heard last. */
    get turnIndex(): number | null;
    /**
     * The next audio frame.
     * @param {{turnIndex: number, samples: number, last: boolean}} frame
     */
    push({ turnIndex, samples, last }: {
        turnIndex: number;
        samples: number;
        last: boolean;
    }): void;
    /**
     * No more frames of this turn will come; for turns whose last frame did not say so.
     * @param {number} turnIndex
     * @returns {ClockEvent[]}
     */
    endTurn(turnIndex: number): ClockEvent[];
    /**
     * So much was played by now, in samples since the beginning. What has happened since the last call, in order.
     * @param {number} samples
     * @returns {ClockEvent[]}
     */
    advance(samples: number): ClockEvent[];
    /**
     * What was not played by then will not be: what comes next is heard next.
     * @param {number} samples
     * @returns {ClockEvent[]}
     */
    cut(samples: number): ClockEvent[];
    #private;
}
/**
 * A turn's first sample is heard; its last was heard; all that came was heard, and no turn is open.
 */
export type ClockEvent = {
    type: "turn" | "turnend";
    turnIndex: number;
    atMs: number;
} | {
    type: "drained";
    atMs: number;
};
