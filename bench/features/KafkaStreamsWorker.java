import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;

/**
 * The peer's side of peers.py: four tumbling windows of ten minutes in Kafka Streams, count and sum of the delay.
 *
 * <p>Each is keyed as one of our views is, so it goes through a topic of its own; two threads, else its defaults (RocksDB, a
 * changelog, a cache of 10 MB). Prints the seconds from the first event in a window to the last as JSON.
 */
public class KafkaStreamsWorker {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final AtomicLong SEEN = new AtomicLong();
    private static volatile long first;

    public static void main(String[] arguments) {
        long events = Long.parseLong(arguments[2]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "streams");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[1]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put("auto.offset.reset", "earliest");

        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, JsonNode> departures = builder
                .stream("departures", Consumed.with(Serdes.String(), Serdes.ByteArray()))
                .mapValues(KafkaStreamsWorker::decoded);
        TimeWindows windows = TimeWindows.ofSizeAndGrace(Duration.ofMinutes(10), Duration.ofHours(1));
        for (String key : new String[] {"airport", "terminal", "route", "aircraft"}) {
            departures
                    .map((old, event) -> KeyValue.pair(event.get(key).asText(), event.get("delay").asDouble()))
                    .groupByKey(Grouped.with(key, Serdes.String(), Serdes.Double()))
                    .windowedBy(windows)
                    .aggregate(
                            () -> new double[2],
                            (name, delay, state) -> updated(state, delay, 4 * events),
                            Materialized.with(Serdes.String(), pairs()));
        }
        new KafkaStreams(builder.build(), settings).start();
    }

    private static double[] updated(double[] state, double delay, long all) {
        long seen = SEEN.incrementAndGet();
        if (seen == 1) {
            first = System.nanoTime();
        }
        if (seen == all) {
            System.out.println("{\"seconds\": " + (System.nanoTime() - first) / 1e9 + "}");
            System.out.flush();
            Runtime.getRuntime().halt(0); // what is measured is over; closing takes as long as it likes
        }
        return new double[] {state[0] + 1, state[1] + delay};
    }

    private static JsonNode decoded(byte[] value) {
        try {
            return JSON.readTree(value);
        } catch (IOException error) {
            throw new IllegalArgumentException(error);
        }
    }

    /** Count and sum, 16 bytes. */
    private static Serde<double[]> pairs() {
        return Serdes.serdeFrom(
                (topic, pair) ->
                        pair == null ? null : ByteBuffer.allocate(16).putDouble(pair[0]).putDouble(pair[1]).array(),
                (topic, bytes) -> {
                    if (bytes == null) {
                        return null;
                    }
                    ByteBuffer read = ByteBuffer.wrap(bytes);
                    return new double[] {read.getDouble(), read.getDouble()};
                });
    }
}
