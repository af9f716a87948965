import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import dev.feast.FeastClient;
import dev.feast.Row;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Asks a features service what it is told on its standard input, through Feast's own Java client, and prints the answer as JSON. */
public class Ask {
    static class Question {
        int port;
        List<String> features;
        List<Map<String, String>> rows;
    }

    public static void main(String[] arguments) {
        Question asked =
                new Gson().fromJson(new InputStreamReader(System.in, StandardCharsets.UTF_8), Question.class);
        Map<String, Object> said = new HashMap<>();
        try (FeastClient client = FeastClient.create("127.0.0.1", asked.port)) {
            said.put("version", client.getFeastServingInfo().getVersion());
            List<Row> rows = new ArrayList<>();
            for (Map<String, String> keys : asked.rows) {
                Row row = Row.create();
                keys.forEach(row::set);
                rows.add(row);
            }
            List<Map<String, Object>> values = new ArrayList<>();
            List<Map<String, String>> statuses = new ArrayList<>();
            for (Row row : client.getOnlineFeatures(asked.features, rows)) {
                Map<String, Object> found = new HashMap<>();
                Map<String, String> states = new HashMap<>();
                row.getFields().forEach((name, value) -> {
                    switch (value.getValCase()) {
                        case VAL_NOT_SET -> found.put(name, null);
                        case DOUBLE_VAL -> found.put(name, value.getDoubleVal());
                        case INT64_VAL -> found.put(name, value.getInt64Val());
                        case STRING_VAL -> found.put(name, value.getStringVal());
                        default -> found.put(name, "a value of type " + value.getValCase());
                    }
                    states.put(name, row.getStatuses().get(name).name());
                });
                values.add(found);
                statuses.add(states);
            }
            said.put("values", values);
            said.put("statuses", statuses);
        } catch (Exception error) {
            said.put("error", error.getMessage());
        }
        System.out.println(new GsonBuilder().serializeNulls().create().toJson(said));
    }
}
