import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Runs the statements of a file in a Flink of this process, and prints the rows of queries.
 *
 * <pre>java -cp 'libs/*' RunSql.java FILE NAME=VALUE…</pre>
 *
 * Each {NAME} in the file is replaced by its value.
 */
public final class RunSql {
    public static void main(String[] arguments) throws Exception {
        String text = Files.readString(Path.of(arguments[0]));
        for (int i = 1; i < arguments.length; i++) {
            String[] parts = arguments[i].split("=", 2);
            text = text.replace("{" + parts[0] + "}", parts[1]);
        }
        TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        tables.getConfig().set("parallelism.default", "1");
        tables.getConfig().set("table.local-time-zone", "UTC");
        for (String statement : text.split(";\\s*\n")) {
            if (!statement.isBlank()) {
                tables.executeSql(statement).print();
            }
        }
    }

    private RunSql() {}
}
