/**
 * @typedef {object} Turn
 * @property {string} turn
 * @property {boolean} cancelled  here, whatever the server knows
 * @property {boolean} written  its text came or comes in pieces
 * @property {boolean} writing  and is not complete
 * @property {boolean} refused  the server takes no more of it
 *
 * @typedef {{resolve: (answer: any) => void, reject: (error: DialogueError) => void, cancelled: boolean}} Asked
 */
/** The turns of a session that were asked for and are not over, and scripts that wait for their answer. */
export class Turns {
    /**
     * Whether a script waits for its answer.
     * @param {string} script
     */
    asked(script: string): boolean;
    /**
     * The answer to a script that was sent.
     * @param {string} script
     * @returns {Promise<{script: string, turns: import('./types.js').AcceptedTurn[]}>}
     */
    askScript(script: string): Promise<{
        script: string;
        turns: import("./types.js").AcceptedTurn[];
    }>;
    /**
     * A turn was asked for.
     * @param {string} turn
     * @param {{writing?: boolean, cancelled?: boolean}} [state]
     */
    add(turn: string, { writing, cancelled }?: {
        writing?: boolean;
        cancelled?: boolean;
    }): {
        turn: string;
        cancelled: boolean;
        written: boolean;
        writing: boolean;
        refused: boolean;
    };
    /** @param {string} turn */
    isWriting(turn: string): boolean;
    /**
     * Whether the turn still takes text.
     * @param {string} turn
     */
    takesText(turn: string): boolean;
    /**
     * Whether the turn's text came in pieces, and it takes no more.
     * @param {string} turn
     */
    isOver(turn: string): boolean;
    /** @param {string} turn */
    stopWriting(turn: string): void;
    /** @param {string | null} turn  null: all */
    cancel(turn: string | null): void;
    /**
     * Whose audio it is. Throws DialogueError for a turn that has not started.
     * @param {number} turnIndex
     */
    ofFrame(turnIndex: number): {
        turn: string;
        cancelled: boolean;
    };
    /**
     * What the server says.
     * @param {any} message
     * @returns {boolean} whether it means nothing to anybody: the answer to text that crossed its turn's end
     */
    note(message: any): boolean;
    /** Nothing more will come. @param {DialogueError} error */
    fail(error: DialogueError): void;
    #private;
}
export type Turn = {
    turn: string;
    /**
     * here, whatever the server knows
     */
    cancelled: boolean;
    /**
     * its text came or comes in pieces
     */
    written: boolean;
    /**
     * and is not complete
     */
    writing: boolean;
    /**
     * the server takes no more of it
     */
    refused: boolean;
};
export type Asked = {
    resolve: (answer: any) => void;
    reject: (error: DialogueError) => void;
    cancelled: boolean;
};
import { DialogueError } from './errors.js';
