/**
 * Listeners by event type. One that throws is reported and stands in nobody's way.
 * @template {Record<string, any>} Events
 */
export class Emitter<Events extends Record<string, any>> {
    /**
     * @template {keyof Events} Type
     * @param {Type} type
     * @param {(event: Events[Type]) => void} listener
     * @returns {() => void} what ends the subscription
     */
    on<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): () => void;
    /**
     * @template {keyof Events} Type
     * @param {Type} type
     * @param {Events[Type]} event
     */
    emit<Type extends keyof Events>(type: Type, event: Events[Type]): void;
    #private;
}
