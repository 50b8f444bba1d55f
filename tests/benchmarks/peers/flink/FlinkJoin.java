// Flink SQL's interval join over the CSV files of a folder, heap state, in this process. Prints as JSON the seconds of
// reading only, and of reading and joining into a sink that drops everything. Arguments: folder, parallelism, window minutes (below 100).
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

public class FlinkJoin {
    public static void main(String[] arguments) throws Exception {
        String folder = arguments[0], parallelism = arguments[1], windowMinutes = arguments[2];
        TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        tables.getConfig().set("parallelism.default", parallelism);
        tables.getConfig().set("state.backend.type", "hashmap");
        String columns = "id BIGINT, `user` STRING, item STRING, `position` BIGINT, price DOUBLE, shown_at TIMESTAMP(3)";
        tables.executeSql(source(folder, "impressions", columns, "shown_at"));
        tables.executeSql(source(folder, "clicks", "id BIGINT, clicked_at TIMESTAMP(3)", "clicked_at"));
        String sample = columns + ", label INT";
        tables.executeSql("CREATE TABLE samples (" + sample + ") WITH ('connector' = 'blackhole')");
        String picked = "SELECT i.id, i.`user`, i.item, i.`position`, i.price, i.shown_at, ";
        double read = run(tables, picked + "0 FROM impressions i");
        double joined = run(tables, picked + "CASE WHEN c.id IS NULL THEN 0 ELSE 1 END FROM impressions i "
                + "LEFT JOIN clicks c ON i.id = c.id AND c.clicked_at BETWEEN i.shown_at AND i.shown_at + INTERVAL '" + windowMinutes + "' MINUTE");
        System.out.println("{\"read_s\": " + read + ", \"join_s\": " + joined + "}");
    }

    private static String source(String folder, String name, String columns, String time) {
        String watermark = "WATERMARK FOR " + time + " AS " + time + " - INTERVAL '1' SECOND";
        return "CREATE TABLE " + name + " (" + columns + ", " + watermark + ") WITH ("
                + "'connector' = 'filesystem', 'format' = 'csv', 'path' = '" + folder + "/" + name + "')";
    }

    private static double run(TableEnvironment tables, String query) throws Exception {
        long started = System.nanoTime();
        tables.executeSql("INSERT INTO samples " + query).await();
        return (System.nanoTime() - started) / 1e9;
    }
}
